; Master boot record code: starts the boot sector of the active partition, as a BIOS starts a disk.
;
; At entry: CS:IP at 0x7c00, DL the drive. At the jump to the boot sector: CS:IP 0000:7c00, DL the drive, DS:SI the partition's entry, as
; boot sectors of Windows and others expect it. Sectors are read by LBA where the BIOS has the INT 13h extensions, else by cylinder, head
; and sector computed from the LBA and the geometry that the BIOS tells (those in the table are not trusted).
;
; nasm -f bin mbr.asm -o mbr.bin; src/bootable/boot-code.ts holds the result.

        bits 16
        cpu 386
        org 0x600

table   equ 0x600 + 446         ; the partition table, in our copy
target  equ 0x7c00
tries   equ 5

start:  cli
        xor ax, ax
        mov ss, ax
        mov sp, target
        mov ds, ax
        mov es, ax
        sti
        cld
        mov si, target          ; we make room for the boot sector
        mov di, start
        mov cx, 256
        rep movsw
        jmp 0:moved

moved:  test dl, dl             ; some BIOSes do not tell the drive
        js known
        mov dl, 0x80
known:  mov [drive], dl

        mov si, table           ; the one active partition
        xor bx, bx
        mov cx, 4
look:   mov al, [si]
        cmp al, 0x80
        jne idle
        test bx, bx
        jnz bad                 ; a second one
        mov bx, si
        jmp next
idle:   test al, al
        jnz bad
next:   add si, 16
        loop look
        test bx, bx
        jz none
        mov si, bx

        mov byte [left], tries
again:  call load
        jnc loaded
        xor ax, ax              ; reset the drive, and once more
        mov dl, [drive]
        int 0x13
        dec byte [left]
        jnz again
        mov di, error
        jmp say

loaded: mov di, missing
        cmp word [target + 510], 0xaa55
        jne say
        mov dl, [drive]
        jmp 0:target

none:   mov di, inactive
        jmp say
bad:    mov di, invalid

; Prints the text at DI on the screen, and waits for ever.
say:    mov al, [di]
        inc di
        test al, al
        jz halt
        mov ah, 0x0e
        mov bx, 7
        int 0x10
        jmp say
halt:   hlt
        jmp halt

; Reads the first sector of the partition at SI to the target. Carry: it failed. Keeps SI.
load:   pusha
        mov ah, 0x41            ; are there extensions?
        mov bx, 0x55aa
        mov dl, [drive]
        int 0x13
        jc chs
        cmp bx, 0xaa55
        jne chs
        test cl, 1              ; with the packet functions?
        jz chs
        mov eax, [si + 8]
        mov [lba], eax
        mov si, packet
        mov ah, 0x42
        mov dl, [drive]
        int 0x13
        jmp done

chs:    mov ah, 8
        mov dl, [drive]
        push es
        xor di, di
        int 0x13
        pop es
        jc done
        and cx, 0x3f            ; sectors in a track
        movzx ebx, dh
        inc bx                  ; heads
        mov eax, [si + 8]
        xor edx, edx
        movzx ecx, cx
        stc
        jcxz done
        div ecx                 ; EDX the sector from 0, EAX tracks
        inc dx
        push dx
        xor edx, edx
        div ebx                 ; EDX the head, EAX the cylinder
        pop cx
        cmp eax, 1024
        cmc
        jc done                 ; out of reach
        mov ch, al
        shl ah, 6
        or cl, ah
        mov dh, dl
        mov dl, [drive]
        mov bx, target
        mov ax, 0x0201
        int 0x13
done:   popa                    ; leaves the carry alone
        ret

invalid: db "Invalid partition table", 13, 10, 0
inactive: db "No active partition", 13, 10, 0
error:  db "Error loading operating system", 13, 10, 0
missing: db "Missing operating system", 13, 10, 0

packet: db 16, 0
        dw 1                    ; sectors
        dw target, 0            ; to
lba:    dd 0, 0
drive:  db 0
left:   db 0

        times 440 - ($ - $$) db 0

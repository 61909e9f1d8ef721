; A first sector for a test: takes the extensions away from INT 13h, as on an old BIOS, and starts the master boot record in sector 1.
        bits 16
        org 0x7c00
        cli
        xor ax, ax
        mov ds, ax
        mov ss, ax
        mov sp, 0x7c00
        mov ax, 0x9000          ; out of the way of what comes
        mov es, ax
        mov si, hook
        xor di, di
        mov cx, hookend - hook
        cld
        rep movsb
        mov eax, [0x13 * 4]
        mov [es:old - hook], eax
        mov word [0x13 * 4], 0
        mov word [0x13 * 4 + 2], 0x9000
        push ds
        pop es
        sti
        mov si, reader          ; we are overwritten by what we read
        mov di, 0x7000
        mov cx, readerend - reader
        rep movsb
        jmp 0:0x7000
reader: mov ax, 0x0201
        mov bx, 0x7c00
        mov cx, 2
        xor dh, dh
        int 0x13
        jmp 0:0x7c00
readerend:

hook:   cmp ah, 0x41
        je .none
        cmp ah, 0x42
        je .none
        jmp far [cs:old - hook]
.none:  push bp
        mov bp, sp
        or byte [bp + 6], 1     ; the carry of the caller
        pop bp
        mov ah, 1
        iret
old:    dd 0
hookend:
        times 510 - ($ - $$) db 0
        dw 0xaa55

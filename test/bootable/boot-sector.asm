; A boot sector for a test: tells on the serial port how it was started, and ends the machine.
        bits 16
        org 0x7c00
        mov al, 'D'
        call put
        mov al, dl
        call hex
        mov al, 'L'
        call put
        mov bp, 4               ; the partition's first sector, from the entry at DS:SI
        add si, 11
.next:  mov al, [si]
        call hex
        dec si
        dec bp
        jnz .next
        mov al, 10
        call put
        mov dx, 0xf4
        out dx, al
        hlt

hex:    push ax
        shr al, 4
        call digit
        pop ax
        and al, 15
digit:  add al, '0'
        cmp al, '9'
        jbe put
        add al, 'a' - '0' - 10
put:    push dx
        mov dx, 0x3f8
        out dx, al
        pop dx
        ret
        times 510 - ($ - $$) db 0
        dw 0xaa55

# The guest starts another kernel in its place: VMBus is unloaded, and contacted anew.
vm kexec
boot kexec 6.12 1 --initrd "$images/kexec.cpio"
ready kexec
guest_reads kexec imc imc.hiv "$folder/first.hiv"
tell kexec "kexec-now /kexec/vmlinuz /kexec/initrd 'console=ttyS0 quiet mitigations=off panic=-1'"
ready kexec 2
guest_reads kexec imc imc.hiv "$folder/first.hiv"

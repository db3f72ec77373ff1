# The guest starts another kernel in its place: VMBus is unloaded, and contacted anew.
vm kexec
boot kexec 6.12 1 --initrd "$images/kexec.cpio"
ready kexec
guest_reads kexec imc imc.hiv "$folder/first.hiv"
tell kexec "kexec-now /kexec/vmlinuz /kexec/initrd '$guest_options'"
ready kexec 2
guest_reads kexec imc imc.hiv "$folder/first.hiv"

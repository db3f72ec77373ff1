# The driver lets go of the device and takes it again: new rings and buffers each time.
vm rebind
boot rebind 6.12 1
ready rebind
guest_reads rebind imc imc.hiv "$folder/first.hiv"
for _ in 1 2 3; do
  guest rebind "unbind imc && bind imc"
  guest_reads rebind imc imc.hiv "$folder/first.hiv"
done

# A VMM is killed while its guest reads: the daemon sees it go, others go on, and the VM starts again.
vm vmm-dies
vm vmm-dies-not
boot vmm-dies 6.12 1
boot vmm-dies-not 6.12 1
ready vmm-dies
ready vmm-dies-not
guest vmm-dies has imc
tell vmm-dies "uio-guest imc repeat 100000 imc.hiv"
within 60 channel_open vmm-dies imc
kill -9 "$(cat "$folder/vmm-dies.pid")"
within 30 channel_closed vmm-dies imc
guest_reads vmm-dies-not imc imc.hiv "$folder/first.hiv"
kill "$(cat "$folder/vmm-dies.holder")"
rm "$folder/vmm-dies.in"
boot vmm-dies 6.12 1
ready vmm-dies
guest_reads vmm-dies imc imc.hiv "$folder/first.hiv"

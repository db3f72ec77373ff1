# A program in the guest overwrites its ring: its channel is faulted with a reason, nothing else is.
vm garbage
vm garbage-beside
boot garbage 6.12 1
boot garbage-beside 6.12 1
ready garbage
ready garbage-beside
guest garbage has imc
tell garbage "uio-guest imc garbage exists /tmp/seen"
fault() { ctl vm get garbage | grep 'fault:'; }
within 30 fault
guest_reads garbage-beside imc imc.hiv "$folder/first.hiv"

# The guest resets the machine, and finds its VMBus as new.
vm reboot
boot reboot 6.12 1
ready reboot
guest_reads reboot imc imc.hiv "$folder/first.hiv"
ctl swap reboot imc --file "$folder/second.hiv" >/dev/null
tell reboot "reboot -f"
ready reboot 2
guest_reads reboot imc imc.hiv "$folder/second.hiv"

# The device is taken away while its channel is open, and comes back.
vm detach
boot detach 6.12 1
ready detach
guest detach has imc
tell detach "uio-guest imc answer & waiting=\$!"
answer detach
within 60 channel_open detach imc
if ctl detach detach imc 2>/dev/null; then die "an open device was detached without --force"; fi
ctl detach detach imc --force >/dev/null
guest detach "lost imc"
same "$(guest detach "wait \$waiting; echo \$?")" 1 "the program on the device"
ctl attach detach imc --file "$folder/second.hiv" >/dev/null
guest_reads detach imc imc.hiv "$folder/second.hiv"

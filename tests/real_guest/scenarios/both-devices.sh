# Both devices of one VM, one after the other and both at the same time.
vm both-devices
ctl attach both-devices boot --file "$folder/second.hiv" --name boot.wim >/dev/null
boot both-devices 6.12 1
ready both-devices
guest_reads both-devices imc imc.hiv "$folder/first.hiv"
guest_reads both-devices boot boot.wim "$folder/second.hiv"
guest both-devices "uio-guest imc repeat 40 imc.hiv & uio-guest boot repeat 40 boot.wim && wait \$!"

# A VMM with a VMBus of its own, which forwards the vmbfs channels.
vm channel-level
boot channel-level 6.12 2 --form channel
ready channel-level
guest_reads channel-level imc imc.hiv "$folder/first.hiv"
guest channel-level "unbind imc && bind imc"
guest_reads channel-level imc imc.hiv "$folder/first.hiv"

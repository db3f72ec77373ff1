# A VMM that writes message slots and event flags itself.
vm mediated
boot mediated 6.12 2 --form mediated
ready mediated
guest_reads mediated imc imc.hiv "$folder/first.hiv"
guest mediated "unbind imc && bind imc"
guest_reads mediated imc imc.hiv "$folder/first.hiv"

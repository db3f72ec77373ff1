# A swap while the guest reads: what is open keeps its content, the next open has the new one.
vm swap
boot swap 6.12 1
ready swap
guest swap has imc
tell swap "uio-guest imc read imc.hiv /tmp/before repeat 200 imc.hiv exists /tmp/swapped read imc.hiv /tmp/after &"
answer swap
within 60 channel_open swap imc
ctl swap swap imc --file "$folder/second.hiv" >/dev/null
guest swap "touch /tmp/swapped; wait"
same "$(guest swap "sha256sum </tmp/before | cut -d' ' -f1")" "$(digest "$folder/first.hiv")" "before the swap"
same "$(guest swap "sha256sum </tmp/after | cut -d' ' -f1")" "$(digest "$folder/first.hiv")" "after it, still open"
guest_reads swap imc imc.hiv "$folder/second.hiv"

# Four VMs at once, each with content of its own.
for number in 1 2 3 4; do
  ctl vm create four-vms-$number >/dev/null
  head -c "${number}0000" "$images/64-mib" >"$folder/four-vms-$number.file"
  ctl attach four-vms-$number boot --file "$folder/four-vms-$number.file" --name content >/dev/null
  boot four-vms-$number 6.12 1
done
for number in 1 2 3 4; do
  ready four-vms-$number
  tell four-vms-$number "has boot && uio-guest boot repeat 50 content >/dev/null && read_file boot content"
done
for number in 1 2 3 4; do
  same "$(answer four-vms-$number)" "$(digest "$folder/four-vms-$number.file")" "VM $number"
done

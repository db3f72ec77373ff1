# Two processors, both kernels at once: signals and messages find the one that waits for them.
vm processors-new
vm processors-old --monitored
boot processors-new 6.12 2
boot processors-old 6.1 2
for name in processors-new processors-old; do
  ready $name
  same "$(guest $name nproc)" 2 "processors of $name"
  for processor in 0 1; do
    guest $name "has imc && taskset -p $((1 << processor)) \$\$ >/dev/null && uio-guest imc repeat 5 imc.hiv" >/dev/null
    guest_reads $name imc imc.hiv "$folder/first.hiv"
  done
done

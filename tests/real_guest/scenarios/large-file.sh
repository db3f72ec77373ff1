# 64 MiB from the boot device.
ctl vm create large-file >/dev/null
ctl attach large-file boot --file "$images/64-mib" --name boot.wim >/dev/null
boot large-file 6.12 1
ready large-file
guest_reads large-file boot boot.wim "$images/64-mib"

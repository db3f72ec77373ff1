# Debian's 6.1 kernel, whose generic driver wants a monitored channel and signals through its page.
vm hive-6.1 --monitored
boot hive-6.1 6.1 1
ready hive-6.1
guest_reads hive-6.1 imc imc.hiv "$folder/first.hiv"

# Debian's 6.12 kernel, one processor: the hive is read, by its digest.
vm hive-6.12
boot hive-6.12 6.12 1
ready hive-6.12
guest_reads hive-6.12 imc imc.hiv "$folder/first.hiv"

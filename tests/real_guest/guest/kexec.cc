// kexec-now KERNEL INITRD COMMAND-LINE: leaves the running kernel for another one at once.

#include <fcntl.h>
#include <linux/reboot.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fputs("usage: kexec-now KERNEL INITRD COMMAND-LINE\n", stderr);
    return 2;
  }
  const int kernel = open(argv[1], O_RDONLY);
  const int initrd = open(argv[2], O_RDONLY);
  if (syscall(SYS_kexec_file_load, kernel, initrd, std::strlen(argv[3]) + 1, argv[3], 0UL) != 0) {
    std::perror("kexec_file_load");
    return 1;
  }
  sync();
  reboot(static_cast<int>(LINUX_REBOOT_CMD_KEXEC));
  std::perror("reboot");
  return 1;
}

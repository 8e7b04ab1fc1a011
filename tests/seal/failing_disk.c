/* SPDX-License-Identifier: Apache-2.0
 *
 * A disk that fails: preloaded into a process, it lets calls for files below FAILING_DISK return EIO while the file
 * FAILING_SWITCH names them (fsync, write, pwrite, fallocate; write: of log files only).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int fails(int descriptor, const char *what) {
  const char *disk = getenv("FAILING_DISK"), *file = getenv("FAILING_SWITCH");
  char link[64], path[4096], text[256];
  if (!disk || !file) return 0;
  int at = syscall(SYS_openat, AT_FDCWD, file, O_RDONLY | O_CLOEXEC);
  if (at < 0) return 0;
  ssize_t size = syscall(SYS_read, at, text, sizeof text - 1);
  syscall(SYS_close, at);
  if (size <= 0) return 0;
  text[size] = 0;
  if (!strstr(text, what)) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  size = readlink(link, path, sizeof path - 1);
  if (size <= 0) return 0;
  path[size] = 0;
  return strncmp(path, disk, strlen(disk)) == 0 && (strcmp(what, " write") || strstr(path, ".log"));
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int fsync(int descriptor) {
  if (fails(descriptor, "fsync")) return errno = EIO, -1;
  return REAL(fsync)(descriptor);
}

ssize_t write(int descriptor, const void *data, size_t size) {
  if (fails(descriptor, " write")) return errno = EIO, -1;
  return REAL(write)(descriptor, data, size);
}

ssize_t pwrite64(int descriptor, const void *data, size_t size, off64_t at) {
  if (fails(descriptor, "pwrite")) return errno = EIO, -1;
  return REAL(pwrite64)(descriptor, data, size, at);
}

int posix_fallocate64(int descriptor, off64_t at, off64_t size) {
  if (fails(descriptor, "fallocate")) return EIO;
  return REAL(posix_fallocate64)(descriptor, at, size);
}

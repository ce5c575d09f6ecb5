/* A network share, as a client of it sees one: loaded into the program under test in front of the C library.
 *
 * Event files under one directory may have old sizes, and reading them may fail; the directory may say that it is on a
 * network file system, and the disk how much room it has. What is said can change at any time: it stands in a file that is
 * read at each call.
 *
 *   SHARE_UNDER   the directory, without links in it
 *   SHARE_TRACE   where to append the path of each directory that is asked to tell of changes, one a line
 *   SHARE_SAYS    the file, with words of the form name=number:
 *     remote=M    the magic number of the file system
 *     size=N      no event file is longer
 *     fail=N      reading an event file fails from byte N on, with `error`
 *     error=E     the number of that error; EIO without it
 *     free=N      bytes that are free on every disk, of 1 GB
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) abort();
    return found;
}

/* What the file says of a word; -1 where it says nothing. */
static long says(const char *word) {
    char text[256];
    const char *path = getenv("SHARE_SAYS");
    int error = errno, fd = path ? REAL(open)(path, O_RDONLY | O_CLOEXEC) : -1;
    ssize_t length = fd < 0 ? 0 : REAL(read)(fd, text, sizeof text - 1);
    if (fd >= 0) close(fd);
    errno = error;
    text[length > 0 ? length : 0] = 0;
    size_t end = strlen(word);
    for (const char *at = text; *at; at += strcspn(at, " \n"), at += strspn(at, " \n"))
        if (strncmp(at, word, end) == 0 && at[end] == '=') return strtol(at + end + 1, NULL, 0);
    return -1;
}

static int is_under(const char *path) {
    char whole[PATH_MAX];
    const char *under = getenv("SHARE_UNDER");
    return under && path && realpath(path, whole) && strncmp(whole, under, strlen(under)) == 0;
}

static int is_event_file(const char *path) { return is_under(path) && strstr(path, "tfevents"); }

static int is_open_event_file(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_event_file(path);
}

/* ---- sizes ---- */

int statx(int at, const char *restrict path, int flags, unsigned mask, struct statx *restrict is) {
    int result = REAL(statx)(at, path, flags, mask, is);
    int ours = result == 0 && S_ISREG(is->stx_mode) && (path && *path ? is_event_file(path) : is_open_event_file(at));
    long size = ours ? says("size") : -1;
    if (size >= 0 && is->stx_size > (unsigned long)size) is->stx_size = size;
    return result;
}

int fstat64(int fd, struct stat64 *is) {
    int result = REAL(fstat64)(fd, is);
    long size = result == 0 && S_ISREG(is->st_mode) && is_open_event_file(fd) ? says("size") : -1;
    if (size >= 0 && is->st_size > size) is->st_size = size;
    return result;
}

int stat64(const char *restrict path, struct stat64 *restrict is) {
    int result = REAL(stat64)(path, is);
    long size = result == 0 && S_ISREG(is->st_mode) && is_event_file(path) ? says("size") : -1;
    if (size >= 0 && is->st_size > size) is->st_size = size;
    return result;
}

/* ---- bytes ---- */

/* How much of a read there is; -1 where it fails. */
static ssize_t allowed(int fd, off_t at, size_t length) {
    if (!is_open_event_file(fd)) return length;
    long size = says("size"), fail = says("fail"), error = says("error");
    if (size >= 0 && at + (off_t)length > size) length = at < size ? size - at : 0;
    if (fail >= 0 && length > 0 && at >= fail) {
        errno = error < 0 ? EIO : error;
        return -1;
    }
    if (fail >= 0 && at + (off_t)length > fail) length = fail - at;
    return length;
}

ssize_t read(int fd, void *into, size_t length) {
    ssize_t now = allowed(fd, lseek(fd, 0, SEEK_CUR), length);
    return now < 0 ? -1 : REAL(read)(fd, into, now);
}

ssize_t pread64(int fd, void *into, size_t length, off64_t at) {
    ssize_t now = allowed(fd, at, length);
    return now < 0 ? -1 : REAL(pread64)(fd, into, now, at);
}

/* ---- what is told of file systems ---- */

int statfs64(const char *path, struct statfs64 *is) {
    int result = REAL(statfs64)(path, is);
    long magic = result == 0 && is_under(path) ? says("remote") : -1;
    if (magic >= 0) is->f_type = magic;
    return result;
}

int statvfs64(const char *restrict path, struct statvfs64 *restrict is) {
    int result = REAL(statvfs64)(path, is);
    long room = result == 0 ? says("free") : -1;
    if (room >= 0) {
        is->f_frsize = is->f_bsize = 1;
        is->f_blocks = 1000000000;
        is->f_bfree = is->f_bavail = room;
    }
    return result;
}

int inotify_add_watch(int fd, const char *path, uint32_t mask) {
    const char *trace = getenv("SHARE_TRACE");
    int to = trace ? REAL(open)(trace, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    if (to >= 0) {
        dprintf(to, "%s\n", path);
        close(to);
    }
    return REAL(inotify_add_watch)(fd, path, mask);
}

/* A disk that can be watched, that fills up, that breaks, and under which the process dies: loaded into the program under
 * test in front of the C library.
 *
 * Every call that changes something under one directory, or syncs its name, is one operation. Operations have numbers, in
 * the order in which they happen; one happens at a time. What was done is appended to a trace, from which a test can tell
 * what a disk would hold if the power had failed. Calls that would copy within the kernel are refused, so that all bytes pass through
 * writes. Reads are nobody's business.
 *
 *   DISK_UNDER   the directory, without links in it
 *   DISK_TRACE   where to append the trace; none without it
 *   DISK_PLAN    words of the form name=number, apart by commas:
 *     before=N     SIGKILL instead of operation N
 *     within=N     SIGKILL when half of what operation N writes is written, or right after it where it writes nothing
 *     fail=N       operation N fails with `error`
 *     full=N       every operation from N on that needs space fails with ENOSPC, a write after its first half
 *     error=E      the number of the error of `fail`; EIO without it
 *     slow=T       making something last takes T microseconds
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))real(#name))

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char under[PATH_MAX];
static size_t under_length;
static int trace = -1;
static long operations, before, within, fail, full, slow;
static int failure = EIO;

static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) abort();
    return found;
}

__attribute__((constructor)) static void begin(void) {
    const char *directory = getenv("DISK_UNDER"), *file = getenv("DISK_TRACE"), *plan = getenv("DISK_PLAN");
    if (!directory) return;
    snprintf(under, sizeof under, "%s", directory);
    under_length = strlen(under);
    if (file) trace = REAL(open)(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    for (const char *word = plan; word && *word; word = strchr(word, ',') ? strchr(word, ',') + 1 : NULL) {
        sscanf(word, "before=%ld", &before);
        sscanf(word, "within=%ld", &within);
        sscanf(word, "fail=%ld", &fail);
        sscanf(word, "full=%ld", &full);
        sscanf(word, "error=%d", &failure);
        sscanf(word, "slow=%ld", &slow);
    }
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

static int is_under(const char *path) {
    return under_length && strncmp(path, under, under_length) == 0 &&
           (path[under_length] == '/' || path[under_length] == 0);
}

/* The absolute path of what a call names: its parent with links followed, and its last name. */
static int place(int directory, const char *path, char *out) {
    char joined[PATH_MAX], parent[PATH_MAX];
    if (!under_length || !path || !*path) return 0;
    if (*path == '/') {
        snprintf(joined, sizeof joined, "%s", path);
    } else {
        char link[64];
        if (directory == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
        else snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
        ssize_t length = readlink(link, joined, sizeof joined - 1);
        if (length < 0) return 0;
        snprintf(joined + length, sizeof joined - length, "/%s", path);
    }
    size_t end = strlen(joined);
    while (end > 1 && joined[end - 1] == '/') joined[--end] = 0;
    char *name = strrchr(joined, '/');
    if (!name) return 0;
    *name++ = 0;
    if (!realpath(*joined ? joined : "/", parent)) return 0;
    int length = snprintf(out, PATH_MAX, "%s/%s", strcmp(parent, "/") ? parent : "", name);
    return length < PATH_MAX && is_under(out);
}

/* Whether a descriptor is of a regular file or directory under the directory; where, and what it is. */
static int open_place(int fd, struct stat *is, char *out) {
    char link[64];
    *out = 0;
    is->st_mode = 0;
    if (!under_length || fstat(fd, is) != 0 || !(S_ISREG(is->st_mode) || S_ISDIR(is->st_mode))) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, out, PATH_MAX - 1);
    if (length < 0) return 0;
    out[length] = 0;
    return is_under(out);
}

/* One record: a line of numbers and lengths, two texts, a line break. */
static void note(char what, uint64_t a, uint64_t b, const void *first, size_t first_length, const void *second,
                 size_t second_length) {
    if (trace < 0) return;
    char head[128];
    int length = snprintf(head, sizeof head, "%c %llu %llu %zu %zu\n", what, (unsigned long long)a,
                          (unsigned long long)b, first_length, second_length);
    struct iovec parts[] = {{head, length},
                            {(void *)first, first_length},
                            {(void *)second, second_length},
                            {"\n", 1}};
    if (REAL(writev)(trace, parts, 4) < 0) abort();
}

static void note_path(char what, uint64_t a, uint64_t b, const char *path) { note(what, a, b, path, strlen(path), "", 0); }

enum how { WHOLE, HALF_THEN_DIE, HALF_THEN_FULL, FAILS };

/* Begins an operation. It fails with `errno` where the answer is FAILS; otherwise `leave` ends it. */
static enum how enter(int needs_space) {
    pthread_mutex_lock(&lock);
    long number = ++operations;
    if (number == before) die();
    if (number == fail) {
        pthread_mutex_unlock(&lock);
        errno = failure;
        return FAILS;
    }
    if (number == within) return HALF_THEN_DIE;
    if (full && number == full && needs_space > 1) return HALF_THEN_FULL;
    if (full && number >= full && needs_space) {
        pthread_mutex_unlock(&lock);
        errno = ENOSPC;
        return FAILS;
    }
    return WHOLE;
}

static void leave(enum how how) {
    if (how == HALF_THEN_DIE) die();
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
}

/* ---- names ---- */

static int do_open(int directory, const char *path, int flags, mode_t mode) {
    char at[PATH_MAX];
    struct stat is;
    int changes = flags & (O_CREAT | O_TRUNC);
    if (!changes || !place(directory, path, at)) return REAL(openat)(directory, path, flags, mode);
    int there = fstatat(AT_FDCWD, at, &is, 0) == 0;
    /* An open that finds what it wants changes nothing. */
    if (there && !((flags & O_TRUNC) && S_ISREG(is.st_mode))) return REAL(openat)(directory, path, flags, mode);
    enum how how = enter(!there);
    if (how == FAILS) return -1;
    int fd = REAL(openat)(directory, path, flags, mode);
    if (fd >= 0 && fstat(fd, &is) == 0 && S_ISREG(is.st_mode)) {
        if (there) note('T', is.st_ino, 0, "", 0, "", 0);
        else note_path('C', is.st_ino, 0, at);
    }
    leave(how);
    return fd;
}

#define MODE(flags)                                                                                                    \
    mode_t mode = 0;                                                                                                   \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                                             \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode = va_arg(rest, mode_t);                                                                                   \
        va_end(rest);                                                                                                  \
    }

int open(const char *path, int flags, ...) { MODE(flags) return do_open(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return do_open(AT_FDCWD, path, flags | O_LARGEFILE, mode); }
int openat(int at, const char *path, int flags, ...) { MODE(flags) return do_open(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE(flags) return do_open(at, path, flags | O_LARGEFILE, mode); }
int creat(const char *path, mode_t mode) { return do_open(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
    char a[PATH_MAX], b[PATH_MAX];
    if (!place(from_at, from, a) || !place(to_at, to, b)) return REAL(renameat2)(from_at, from, to_at, to, flags);
    enum how how = enter(0);
    if (how == FAILS) return -1;
    int result = REAL(renameat2)(from_at, from, to_at, to, flags);
    if (result == 0) note('R', 0, 0, a, strlen(a), b, strlen(b));
    leave(how);
    return result;
}
int renameat(int from_at, const char *from, int to_at, const char *to) { return renameat2(from_at, from, to_at, to, 0); }
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }

int unlinkat(int at, const char *path, int flags) {
    char a[PATH_MAX];
    struct stat is;
    if (!place(at, path, a) || fstatat(AT_FDCWD, a, &is, AT_SYMLINK_NOFOLLOW) != 0)
        return REAL(unlinkat)(at, path, flags);
    enum how how = enter(0);
    if (how == FAILS) return -1;
    int result = REAL(unlinkat)(at, path, flags);
    if (result == 0) note_path('U', 0, 0, a);
    leave(how);
    return result;
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdirat(int at, const char *path, mode_t mode) {
    char a[PATH_MAX];
    struct stat is;
    if (!place(at, path, a) || fstatat(AT_FDCWD, a, &is, AT_SYMLINK_NOFOLLOW) == 0) return REAL(mkdirat)(at, path, mode);
    enum how how = enter(1);
    if (how == FAILS) return -1;
    int result = REAL(mkdirat)(at, path, mode);
    if (result == 0) note_path('M', 0, 0, a);
    leave(how);
    return result;
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

int symlinkat(const char *target, int at, const char *path) {
    char a[PATH_MAX];
    if (!place(at, path, a)) return REAL(symlinkat)(target, at, path);
    enum how how = enter(1);
    if (how == FAILS) return -1;
    int result = REAL(symlinkat)(target, at, path);
    if (result == 0) note('L', 0, 0, a, strlen(a), target, strlen(target));
    leave(how);
    return result;
}
int symlink(const char *target, const char *path) { return symlinkat(target, AT_FDCWD, path); }

/* A second name for a file would need a model of its own. Nothing here makes one. */
int linkat(int from_at, const char *from, int to_at, const char *to, int flags) {
    char a[PATH_MAX];
    if (place(to_at, to, a)) abort();
    return REAL(linkat)(from_at, from, to_at, to, flags);
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

/* ---- bytes ---- */

static ssize_t do_write(int fd, const struct iovec *parts, int count, off_t at) {
    char path[PATH_MAX];
    struct stat is;
    size_t length = 0;
    for (int i = 0; i < count; i++) length += parts[i].iov_len;
    if (!length || !open_place(fd, &is, path)) {
        if (at >= 0) return REAL(pwritev)(fd, parts, count, at);
        return REAL(writev)(fd, parts, count);
    }
    enum how how = enter(2);
    if (how == FAILS) return -1;
    char *bytes = malloc(length), *next = bytes;
    if (!bytes) abort();
    for (int i = 0; i < count; i++) next = mempcpy(next, parts[i].iov_base, parts[i].iov_len);
    size_t now = how == WHOLE ? length : length / 2;
    off_t offset = at;
    if (at < 0) {
        /* With O_APPEND the offset is where the file ends, and nobody else writes to it here. */
        int flags = fcntl(fd, F_GETFL);
        offset = flags >= 0 && (flags & O_APPEND) ? is.st_size : lseek(fd, 0, SEEK_CUR);
    }
    ssize_t written;
    if (!now) {
        written = -1;
        errno = ENOSPC;
    } else {
        written = at >= 0 ? REAL(pwrite)(fd, bytes, now, at) : REAL(write)(fd, bytes, now);
    }
    if (written > 0) note('W', is.st_ino, offset, bytes, written, "", 0);
    free(bytes);
    leave(how);
    return written;
}

ssize_t write(int fd, const void *bytes, size_t length) {
    struct iovec part = {(void *)bytes, length};
    if (!under_length) return REAL(write)(fd, bytes, length);
    return do_write(fd, &part, 1, -1);
}
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) {
    struct iovec part = {(void *)bytes, length};
    return do_write(fd, &part, 1, at);
}
ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at) { return pwrite(fd, bytes, length, at); }
ssize_t writev(int fd, const struct iovec *parts, int count) { return do_write(fd, parts, count, -1); }
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) { return do_write(fd, parts, count, at); }
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) { return do_write(fd, parts, count, at); }

int ftruncate(int fd, off_t length) {
    char path[PATH_MAX];
    struct stat is;
    /* A file that is as long already stays as it is. */
    if (!open_place(fd, &is, path) || is.st_size == length) return REAL(ftruncate)(fd, length);
    enum how how = enter(0);
    if (how == FAILS) return -1;
    int result = REAL(ftruncate)(fd, length);
    if (result == 0) note('T', is.st_ino, length, "", 0, "", 0);
    leave(how);
    return result;
}
int ftruncate64(int fd, off64_t length) { return ftruncate(fd, length); }

/* Whoever hears this writes instead. */
ssize_t copy_file_range(int from, off64_t *from_at, int to, off64_t *to_at, size_t length, unsigned flags) {
    char path[PATH_MAX];
    struct stat is;
    if (!open_place(to, &is, path)) return REAL(copy_file_range)(from, from_at, to, to_at, length, flags);
    errno = ENOSYS;
    return -1;
}
ssize_t sendfile(int to, int from, off_t *at, size_t length) {
    char path[PATH_MAX];
    struct stat is;
    if (!open_place(to, &is, path)) return REAL(sendfile)(to, from, at, length);
    errno = ENOSYS;
    return -1;
}
ssize_t sendfile64(int to, int from, off64_t *at, size_t length) { return sendfile(to, from, at, length); }

/* ---- what makes it last ---- */

/* The real disk is not asked: its power does not fail here, and waiting for it takes most of the time. */
static int do_sync(int fd, char what, int (*otherwise)(int)) {
    char path[PATH_MAX];
    struct stat is;
    /* The directory above holds the name of the one that is watched. */
    int above = 0;
    if (!open_place(fd, &is, path)) {
        size_t length = strlen(path);
        above = under_length && S_ISDIR(is.st_mode) && strncmp(under, path, length) == 0 && under[length] == '/' &&
                !strchr(under + length + 1, '/');
        if (!above) return otherwise(fd);
    }
    if (slow) usleep(slow);
    enum how how = enter(0);
    if (how == FAILS) return -1;
    if (what == 'A') note_path('A', 0, 0, path);
    else if (S_ISDIR(is.st_mode)) note_path('D', 0, 0, path);
    else note('S', is.st_ino, 0, "", 0, "", 0);
    leave(how);
    return 0;
}

int fsync(int fd) { return do_sync(fd, 'S', REAL(fsync)); }
int fdatasync(int fd) { return do_sync(fd, 'S', REAL(fdatasync)); }
int syncfs(int fd) { return do_sync(fd, 'A', REAL(syncfs)); }

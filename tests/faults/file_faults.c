/* Preloaded into a process, it logs every change that is made below one directory, and can make
 * the n-th of them fail. Python's own calls and SQLite's pass through here alike.
 *
 * A record of the log: kind, path, second path or nothing, offset, length, then so many bytes. The
 * log is written with the real write, by one thread at a time, in the order of the changes.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

enum mode { FAIL = 0, SHORT = 1 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];
static int log_fd = -1;
static long count, fail_at, fail_mode;
static int fail_errno, fail_next_write;

/* Called by the test through ctypes: watch `directory` from now on. */
void faults_arm(const char *directory, const char *log, long n, int error, long mode) {
    pthread_mutex_lock(&lock);
    snprintf(root, sizeof root, "%s", directory);
    count = 0, fail_at = n, fail_errno = error, fail_mode = mode, fail_next_write = 0;
    if (log_fd >= 0) REAL(close)(log_fd);
    log_fd = *log ? REAL(open)(log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600) : -1;
    pthread_mutex_unlock(&lock);
}

/* How many changes there were; stops watching. */
long faults_disarm(void) {
    pthread_mutex_lock(&lock);
    root[0] = 0;
    if (log_fd >= 0) REAL(close)(log_fd);
    log_fd = -1;
    long n = count;
    pthread_mutex_unlock(&lock);
    return n;
}

static int below(const char *path) {
    size_t n = strlen(root);
    return n && !strncmp(path, root, n) && (path[n] == '/' || !path[n]);
}

static int path_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, PATH_MAX - 1);
    path[n < 0 ? 0 : n] = 0;
    return n > 0 && root[0] && below(path);
}

static int absolute(int dir, const char *name, char *path) {
    if (name[0] == '/') snprintf(path, PATH_MAX, "%s", name);
    else if (dir == AT_FDCWD) {
        char cwd[PATH_MAX];
        if (!getcwd(cwd, sizeof cwd)) return 0;
        if (snprintf(path, PATH_MAX, "%s/%s", cwd, name) >= PATH_MAX) return 0;
    } else {
        char parent[PATH_MAX];
        path_of(dir, parent);
        if (snprintf(path, PATH_MAX, "%s/%s", parent, name) >= PATH_MAX) return 0;
    }
    return root[0] && below(path);
}

static void put(const void *bytes, size_t n) {
    while (n) {
        ssize_t done = REAL(write)(log_fd, bytes, n);
        if (done <= 0) abort();
        bytes = (const char *)bytes + done, n -= (size_t)done;
    }
}

static void record(char kind, const char *path, const char *other, long at, const void *bytes,
                   long n) {
    if (log_fd < 0) return;
    char head[2 * PATH_MAX + 64];
    long long stored = bytes ? n : 0;
    int length = snprintf(head, sizeof head, "%c\t%s\t%s\t%ld\t%ld\t%lld\n", kind, path, other, at,
                          n, stored);
    put(head, (size_t)length);
    if (stored) put(bytes, (size_t)stored);
}

/* Whether this change is the one to fail; errno is set. */
static int fails(void) {
    if (++count != fail_at) return 0;
    errno = fail_errno;
    return 1;
}

static ssize_t change(int fd, const void *bytes, size_t n, off_t at, int positioned) {
    char path[PATH_MAX];
    if (!root[0] || !path_of(fd, path))
        return positioned ? REAL(pwrite64)(fd, bytes, n, at) : REAL(write)(fd, bytes, n);
    pthread_mutex_lock(&lock);
    ssize_t done = -1;
    int bad = fails();
    if (fail_next_write) {
        fail_next_write = 0, errno = fail_errno;
    } else if (!bad || fail_mode == SHORT) {
        if (bad) n = (n + 1) / 2, fail_next_write = 1;
        if (!positioned) {
            int flags = fcntl(fd, F_GETFL);
            at = lseek(fd, 0, flags & O_APPEND ? SEEK_END : SEEK_CUR);
        }
        done = positioned ? REAL(pwrite64)(fd, bytes, n, at) : REAL(write)(fd, bytes, n);
        if (done > 0) record('w', path, "", at, bytes, done);
    }
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

ssize_t write(int fd, const void *bytes, size_t n) { return change(fd, bytes, n, 0, 0); }
ssize_t pwrite(int fd, const void *bytes, size_t n, off_t at) { return change(fd, bytes, n, at, 1); }
ssize_t pwrite64(int fd, const void *bytes, size_t n, off64_t at) {
    return change(fd, bytes, n, at, 1);
}

/* Python copies files with it; through `change`, so that the log has the bytes. */
ssize_t sendfile64(int out, int in, off64_t *at, size_t n) {
    char path[PATH_MAX];
    if (!root[0] || !path_of(out, path)) return REAL(sendfile64)(out, in, at, n);
    char bytes[65536];
    ssize_t got = at ? pread64(in, bytes, n < sizeof bytes ? n : sizeof bytes, *at)
                     : read(in, bytes, n < sizeof bytes ? n : sizeof bytes);
    if (got <= 0) return got;
    ssize_t done = change(out, bytes, (size_t)got, 0, 0);
    if (done > 0 && at) *at += done;
    return done;
}
ssize_t sendfile(int out, int in, off_t *at, size_t n) { return sendfile64(out, in, at, n); }

/* The rest: calls with one or two names, or with a descriptor. */
#define ONE(kind, dir, name, call)                                                                \
    char path[PATH_MAX];                                                                           \
    if (!absolute(dir, name, path)) return call;                                                   \
    pthread_mutex_lock(&lock);                                                                     \
    int done = fails() ? -1 : call;                                                                \
    if (!done) record(kind, path, "", 0, NULL, 0);                                                 \
    int error = errno;                                                                             \
    pthread_mutex_unlock(&lock);                                                                   \
    errno = error;                                                                                 \
    return done;

#define TWO(kind, dir, name, other_dir, other_name, call)                                         \
    char path[PATH_MAX], other[PATH_MAX];                                                          \
    if (!absolute(dir, name, path) || !absolute(other_dir, other_name, other)) return call;        \
    pthread_mutex_lock(&lock);                                                                     \
    int done = fails() ? -1 : call;                                                                \
    if (!done) record(kind, path, other, 0, NULL, 0);                                              \
    int error = errno;                                                                             \
    pthread_mutex_unlock(&lock);                                                                   \
    errno = error;                                                                                 \
    return done;

#define DESCRIPTOR(kind, length, call)                                                            \
    char path[PATH_MAX];                                                                           \
    if (!root[0] || !path_of(fd, path)) return call;                                               \
    pthread_mutex_lock(&lock);                                                                     \
    int done = fails() ? -1 : call;                                                                \
    if (!done) record(kind, path, "", length, NULL, 0);                                            \
    int error = errno;                                                                             \
    pthread_mutex_unlock(&lock);                                                                   \
    errno = error;                                                                                 \
    return done;

int fsync(int fd) { DESCRIPTOR('s', 0, REAL(fsync)(fd)) }
int fdatasync(int fd) { DESCRIPTOR('s', 0, REAL(fdatasync)(fd)) }
int ftruncate(int fd, off_t n) { DESCRIPTOR('t', n, REAL(ftruncate)(fd, n)) }
int ftruncate64(int fd, off64_t n) { DESCRIPTOR('t', n, REAL(ftruncate64)(fd, n)) }
int unlink(const char *name) { ONE('u', AT_FDCWD, name, REAL(unlink)(name)) }
int unlinkat(int dir, const char *name, int flags) {
    ONE(flags &AT_REMOVEDIR ? 'r' : 'u', dir, name, REAL(unlinkat)(dir, name, flags))
}
int rmdir(const char *name) { ONE('r', AT_FDCWD, name, REAL(rmdir)(name)) }
int mkdir(const char *name, mode_t m) { ONE('d', AT_FDCWD, name, REAL(mkdir)(name, m)) }
int mkdirat(int dir, const char *name, mode_t m) { ONE('d', dir, name, REAL(mkdirat)(dir, name, m)) }
int rename(const char *a, const char *b) { TWO('m', AT_FDCWD, a, AT_FDCWD, b, REAL(rename)(a, b)) }
int renameat(int d, const char *a, int e, const char *b) {
    TWO('m', d, a, e, b, REAL(renameat)(d, a, e, b))
}
int link(const char *a, const char *b) { TWO('l', AT_FDCWD, a, AT_FDCWD, b, REAL(link)(a, b)) }
int linkat(int d, const char *a, int e, const char *b, int flags) {
    TWO('l', d, a, e, b, REAL(linkat)(d, a, e, b, flags))
}

/* A file that comes to be, or loses its content, by being opened. */
static int opened(int dir, const char *name, int flags, mode_t m) {
    char path[PATH_MAX];
    int changes = flags & (O_CREAT | O_TRUNC) && (flags & O_TMPFILE) != O_TMPFILE;
    if (!changes || !absolute(dir, name, path)) return REAL(openat64)(dir, name, flags, m);
    pthread_mutex_lock(&lock);
    struct stat before;
    int existed = !stat(path, &before);
    int fd = -1;
    int counts = !existed || flags & O_TRUNC;
    if (!counts || !fails()) fd = REAL(openat64)(dir, name, flags, m);
    if (fd >= 0 && counts) record(existed ? 't' : 'c', path, "", 0, NULL, 0);
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return fd;
}

#define MODE                                                                                       \
    va_list rest;                                                                                  \
    va_start(rest, flags);                                                                         \
    mode_t m = flags & (O_CREAT | O_TMPFILE) ? (mode_t)va_arg(rest, int) : 0;                      \
    va_end(rest);

int open(const char *name, int flags, ...) { MODE return opened(AT_FDCWD, name, flags, m); }
int open64(const char *name, int flags, ...) { MODE return opened(AT_FDCWD, name, flags, m); }
int openat(int dir, const char *name, int flags, ...) { MODE return opened(dir, name, flags, m); }
int openat64(int dir, const char *name, int flags, ...) { MODE return opened(dir, name, flags, m); }

# systemd as PID 1 of namespaces of its own, on the host's files with a layer of memory above. FOLDER is the test's, UNITS and
# FILES in it are copied in; nothing but UNITS is loaded. The cgroup that this starts in becomes systemd's root.
set -eu
root=$FOLDER/root layer=$FOLDER/layer
mkdir -p "$root" "$layer"
mount --make-rprivate /
mount -t tmpfs tmpfs "$layer"
mkdir "$layer/upper" "$layer/work"
mount -t overlay overlay -o "lowerdir=/,upperdir=$layer/upper,workdir=$layer/work" "$root"
mount -t proc proc "$root/proc"
# Settings of the kernel are everybody's.
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t bpf bpf "$root/sys/fs/bpf"
for scratch in run tmp dev; do mount -t tmpfs -o mode=755 tmpfs "$root/$scratch"; done
mknod -m 666 "$root/dev/null" c 1 3
mknod -m 666 "$root/dev/zero" c 1 5
mknod -m 666 "$root/dev/random" c 1 8
mknod -m 666 "$root/dev/urandom" c 1 9
ln -s /proc/self/fd "$root/dev/fd"
cp -r "$FOLDER/files/." "$root/"
mkdir "$root/run/old"
cd "$root"
pivot_root . run/old
umount -l run/old
rmdir run/old
exec env -i container=test SYSTEMD_UNIT_PATH=/etc/units PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=test.target --log-target=null --show-status=false

#!/bin/sh
# Process 1 of a host: makes its view of the file system and becomes its sshd. Called with the directory of the host.
# The root is an overlay of this machine's, so the system's Python is there; homes, /run and /tmp are the host's own.
set -eu
dir=$1 name=$2
root=$dir/root
home=/home/chord
hostname "$name"
mount -t overlay overlay -o "lowerdir=/,upperdir=$dir/upper,workdir=$dir/work" "$root"
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys" # most of it is the whole machine's
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
for own in root home; do
  mkdir -p "$root/$own" "$dir/own/$own"
  mount --bind "$dir/own/$own" "$root/$own"
done
mkdir -p "$root/run/sshd"
chroot "$root" sh -c 'id chord >/dev/null 2>&1 || useradd -m -s /bin/sh -p "*" chord'
chroot "$root" install -d -m 700 -o chord -g chord "$home" "$home/.ssh"
install -m 600 "$dir/authorized_keys" "$root$home/.ssh/authorized_keys"
chroot "$root" chown chord:chord "$home/.ssh/authorized_keys"
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$root" /usr/sbin/sshd -D -e -f /etc/ssh/sshd_of_host

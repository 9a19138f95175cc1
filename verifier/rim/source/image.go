package source

import (
	"bufio"
	"cmp"
	"errors"
	"io"
	"path"
	"strings"

	"virt-attest/verifier/rim/disk"
)

// volume is a file system of an image, and where it is mounted.
type volume struct {
	fs    *disk.Ext4
	part  disk.Partition
	mount string // "" for nowhere
}

// image lists the files of a disk image: those of the file system that has /etc, and of those that its /etc/fstab mounts.
func (c *collector) image(name string) error {
	f, size, err := openRegular(name)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	img, err := disk.Open(f, size)
	if err != nil {
		return c.blame(name, err)
	}
	volumes, err := c.volumes(img)
	if err == nil {
		err = c.mounts(volumes)
	}
	for _, v := range volumes {
		if err == nil && v.mount != "" {
			err = c.volume(img, v)
		}
	}
	if err != nil {
		return c.blame(name, err)
	}
	return nil
}

// volumes opens every file system that can be read, and remarks on the others.
func (c *collector) volumes(img *disk.Image) ([]*volume, error) {
	parts, err := disk.Partitions(img, img.Size)
	if err != nil {
		return nil, err
	}
	var out []*volume
	for _, p := range parts {
		switch kind := disk.Kind(img, p); kind {
		case "ext4":
			fs, err := disk.OpenExt4(img, p)
			if err != nil {
				return nil, err
			}
			out = append(out, &volume{fs: fs, part: p})
		case "swap", "nothing":
		default:
			c.remark("partition %d (%s) is not read; only ext2, ext3 and ext4 are", p.Number, kind)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("there is no ext2, ext3 or ext4 file system in it; mount it read-only and name the directory as a root file system")
	}
	return out, nil
}

// mounts finds the root, and by its fstab where the others belong.
func (c *collector) mounts(volumes []*volume) error {
	var root *volume
	var table string
	for _, v := range volumes {
		for _, file := range []string{"/etc/fstab", "/etc/passwd"} {
			n, ok, err := v.fs.Find(file)
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			if root != nil && root != v {
				return errors.New("more than one file system in it looks like a machine's root")
			}
			if root = v; file == "/etc/fstab" {
				if table, err = text(v.fs, n); err != nil {
					return err
				}
			}
		}
	}
	if root == nil {
		return errors.New("no file system in it has /etc/fstab or /etc/passwd: there is no machine's root")
	}
	root.mount = "/"
	fstab := parseFstab(table)
	for _, v := range volumes {
		if v == root {
			continue
		}
		if v.mount = cmp.Or(fstab["UUID="+v.fs.UUID], fstab["LABEL="+v.fs.Label], fstab["PARTUUID="+v.part.UUID]); v.mount == "" {
			c.remark("partition %d is not read: /etc/fstab mounts it nowhere by UUID, LABEL or PARTUUID", v.part.Number)
		}
	}
	return nil
}

// text is a small file of a file system.
func text(fs *disk.Ext4, n disk.Node) (string, error) {
	if n.Size > disk.MaxText {
		return "", errors.New("/etc/fstab is too large")
	}
	r, err := fs.Open(n)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(r)
	return string(b), err
}

// parseFstab gives the mount points by what is mounted: "UUID=…" in lower case, "LABEL=…", "PARTUUID=…" in lower case.
func parseFstab(table string) map[string]string {
	out := map[string]string{}
	s := bufio.NewScanner(strings.NewReader(table))
	for s.Scan() {
		f := strings.Fields(s.Text())
		if len(f) < 2 || strings.HasPrefix(f[0], "#") || !strings.HasPrefix(f[1], "/") {
			continue
		}
		key, value, ok := strings.Cut(f[0], "=")
		if !ok {
			continue
		}
		value = strings.Trim(value, `"`)
		if key != "LABEL" {
			value = strings.ToLower(value)
		}
		out[key+"="+value] = path.Clean(f[1])
	}
	return out
}

// volume lists the files of one file system.
func (c *collector) volume(img *disk.Image, v *volume) error {
	files, err := v.fs.Files(c.ctx)
	if err != nil {
		return err
	}
	budget := 4 * img.Size // files may share blocks, and be sparse, but not without end
	for i, n := range files {
		name := path.Join(v.mount, n.Path)
		c.progress("files", i+1, len(files))
		if c.left(name) {
			continue
		}
		if n.Size > img.Size {
			c.remark("%s is left out: it is sparse and larger than the disk", name)
			continue
		}
		if budget -= n.Size; budget < 0 {
			return errors.New("its files are larger than the disk by far")
		}
		r, err := v.fs.Open(n)
		if err != nil {
			return err
		}
		digests, err := c.digest(r, n.Size)
		if err != nil {
			return err
		}
		if err := c.add(name, digests); err != nil {
			return err
		}
	}
	return nil
}

package disk

import (
	"context"
	"encoding/binary"
	"io"
	"strings"
)

// Node is a regular file of a file system.
type Node struct {
	Path  string // from the file system's root, begins with "/"; any bytes
	Size  int64
	inode *inode
}

// Files lists the regular files of the file system, in the order of its directories.
func (f *Ext4) Files(ctx context.Context) ([]Node, error) {
	w := treeWalk{f: f, ctx: ctx, seen: map[uint32]bool{}}
	root, err := f.inode(2)
	if err != nil {
		return nil, err
	}
	if !root.dir() {
		return nil, bad("the file system's root is no directory")
	}
	err = w.dir(root, "", 0)
	return w.out, err
}

// Open reads a file of the file system.
func (f *Ext4) Open(n Node) (io.Reader, error) { return f.open(n.inode) }

// Find gives the regular file at a path, without following symbolic links; ok is false where there is none.
func (f *Ext4) Find(path string) (n Node, ok bool, err error) {
	at, err := f.inode(2)
	if err != nil {
		return Node{}, false, err
	}
	for name := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if !at.dir() {
			return Node{}, false, nil
		}
		next := uint32(0)
		entries := 0
		err := f.entries(at, &entries, func(inode uint32, entry string) error {
			if entry == name {
				next = inode
			}
			return nil
		})
		if err != nil || next == 0 {
			return Node{}, false, err
		}
		if at, err = f.inode(next); err != nil {
			return Node{}, false, err
		}
	}
	return Node{path, at.size, at}, at.regular(), nil
}

// treeWalk walks all directories once.
type treeWalk struct {
	f       *Ext4
	ctx     context.Context //nolint:containedctx // lives as long as one call
	seen    map[uint32]bool
	entries int
	out     []Node
}

func (w *treeWalk) dir(i *inode, path string, depth int) error {
	switch {
	case w.ctx.Err() != nil:
		return w.ctx.Err()
	case w.seen[i.number]:
		return bad("a directory is in the tree twice")
	case depth > MaxDepth:
		return bad("more than %d directories in each other", MaxDepth)
	}
	w.seen[i.number] = true
	return w.f.entries(i, &w.entries, func(number uint32, name string) error {
		if name == "." || name == ".." {
			return nil
		}
		if len(path)+1+len(name) > MaxPath || strings.ContainsAny(name, "/\x00") {
			return bad("a name is not one that Linux allows")
		}
		child, err := w.f.inode(number)
		switch {
		case err != nil:
			return err
		case child.dir():
			return w.dir(child, path+"/"+name, depth+1)
		case child.regular():
			w.out = append(w.out, Node{path + "/" + name, child.size, child})
		}
		return nil
	})
}

// entries visits the entries of a directory; count is of all that were visited before.
func (f *Ext4) entries(dir *inode, count *int, visit func(inode uint32, name string) error) error {
	if dir.size > f.size {
		return bad("a directory is larger than the file system")
	}
	r, err := f.open(dir)
	if err != nil {
		return err
	}
	block := make([]byte, f.block)
	for left := dir.size; left > 0; left -= f.block {
		if _, err := io.ReadFull(r, block); err != nil {
			return bad("a directory does not end with a block: %v", err)
		}
		for at := 0; at < len(block); {
			number := binary.LittleEndian.Uint32(block[at:])
			length, name := int(binary.LittleEndian.Uint16(block[at+4:])), int(block[at+6])
			if *count++; length < 12 || length%4 != 0 || at+length > len(block) || 8+name > length || *count > MaxEntries {
				return bad("a directory is damaged, or there are more than %d entries", MaxEntries)
			}
			if number != 0 && name > 0 {
				if err := visit(number, string(block[at+8:at+8+name])); err != nil {
					return err
				}
			}
			at += length
		}
	}
	return nil
}

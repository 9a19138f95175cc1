package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
)

// mux shares one TPM among several clients, one command at a time. It lets nothing but
// commands through: no control channel, so no reset. What a client loads stays loaded until
// it is flushed, as with a swtpm's own socket.
type mux struct {
	listener net.Listener
	tpm      net.Conn
	turn     sync.Mutex // one command at a time

	mu      sync.Mutex
	clients map[net.Conn]bool
	closed  bool
	wg      sync.WaitGroup
}

// listenMux shares the TPM behind the connection tpm, which it will close, at path.
func listenMux(path string, tpm net.Conn) (*mux, error) {
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, errors.Join(err, tpm.Close())
	}
	m := &mux{listener: l, tpm: tpm, clients: map[net.Conn]bool{}}
	m.wg.Go(m.accept)
	return m, os.Chmod(path, 0o600)
}

func (m *mux) accept() {
	for {
		c, err := m.listener.Accept()
		if err != nil {
			return
		}
		if !m.enter(c) {
			c.Close()
			return
		}
		m.wg.Go(func() { m.serve(c) })
	}
}

func (m *mux) enter(c net.Conn) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.clients[c] = true
	return !m.closed
}

func (m *mux) leave(c net.Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.clients, c)
	c.Close()
}

func (m *mux) close() error {
	m.mu.Lock()
	m.closed = true
	for c := range m.clients {
		c.Close()
	}
	m.mu.Unlock()
	err := errors.Join(m.listener.Close(), m.tpm.Close())
	m.wg.Wait()
	return err
}

// serve carries commands until the client goes or sends something that is no command.
func (m *mux) serve(c net.Conn) {
	defer m.leave(c)
	for {
		cmd, err := readTPMFrame(c)
		if err != nil {
			return
		}
		rsp, err := m.transact(cmd)
		if err != nil {
			return
		}
		if _, err := c.Write(rsp); err != nil {
			return
		}
	}
}

func (m *mux) transact(cmd []byte) ([]byte, error) {
	m.turn.Lock()
	defer m.turn.Unlock()
	if _, err := m.tpm.Write(cmd); err != nil {
		return nil, err
	}
	return readTPMFrame(m.tpm)
}

// readTPMFrame reads one command or response: tag, size over all, code, rest.
func readTPMFrame(r io.Reader) ([]byte, error) {
	head := make([]byte, 10)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(head[2:])
	if size < 10 || size > maxTPMFrame {
		return nil, fmt.Errorf("lab: TPM frame of %d bytes", size)
	}
	frame := make([]byte, size)
	copy(frame, head)
	_, err := io.ReadFull(r, frame[10:])
	return frame, err
}

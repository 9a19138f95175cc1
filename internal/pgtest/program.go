package pgtest

import (
	"context"
	"crypto/rand"
	"strings"
)

// Begin makes a cluster for a program that is no test, which has to Close it.
func Begin(ctx context.Context) (*Cluster, error) { return start(ctx) }

// Close ends the server and removes its data.
func (c *Cluster) Close() { c.close() }

// Database makes an empty database and gives its address by the socket.
func (c *Cluster) Database(ctx context.Context) (string, error) {
	name := "program_" + strings.ToLower(rand.Text())
	if err := c.admin(ctx, `CREATE DATABASE `+name); err != nil {
		return "", err
	}
	return c.url(name), nil
}

// PID is the server's keeper, whose children are the server and its processes; 0 while it is stopped.
func (c *Cluster) PID() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server == nil {
		return 0
	}
	return c.server.Process.Pid
}

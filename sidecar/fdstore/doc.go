// Package fdstore keeps file descriptors in the service manager while the process is dead
// (sd_notify(3): FDSTORE, FDSTOREREMOVE, BARRIER; sd_listen_fds(3)). It is the process's end of
// systemd's protocol and nothing more: an AF_UNIX datagram socket named by NOTIFY_SOCKET, and
// descriptors from 3 upwards, named by LISTEN_FDNAMES, when the process is started again.
//
// What Keep and Drop say is in force when Barrier returns: systemd works notifications off in
// order. Where no service manager is listening nothing is kept, and nothing fails.
package fdstore

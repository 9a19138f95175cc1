package store

import (
	"context"
	"database/sql"
	"errors"
)

// writer is a pool that transactions for writing come from. Where there is one writer at a time (SQLite), it keeps
// its connection with the statements that were prepared on it, and whoever uses it holds Store.writing.
type writer struct {
	*sql.DB
	single bool

	conn *sql.Conn
	list map[string]*sql.Stmt
}

// begin begins a transaction.
func (w *writer) begin(t *tx) (err error) {
	if !w.single {
		t.Tx, err = w.BeginTx(t.ctx, nil)
		return err
	}
	if w.conn == nil {
		if w.conn, err = w.Conn(t.ctx); err != nil {
			return err
		}
	}
	if t.Tx, err = w.conn.BeginTx(t.ctx, nil); err != nil {
		w.drop()
	}
	return err
}

// prepared gives a statement ready to run on the connection of the transaction under way, nil where the driver keeps
// prepared statements itself.
func (w *writer) prepared(ctx context.Context, text string) (*sql.Stmt, error) {
	if !w.single {
		return nil, nil
	}
	if stmt := w.list[text]; stmt != nil {
		return stmt, nil
	}
	if len(w.list) >= maxStatements {
		return nil, nil
	}
	stmt, err := w.conn.PrepareContext(ctx, text)
	if err != nil {
		return nil, err
	}
	if w.list == nil {
		w.list = make(map[string]*sql.Stmt)
	}
	w.list[text] = stmt
	return stmt, nil
}

// drop lets go of a connection that something went wrong on.
func (w *writer) drop() {
	_ = w.release()
}

func (w *writer) release() error {
	var errs []error
	for _, s := range w.list {
		errs = append(errs, s.Close())
	}
	if w.conn != nil {
		errs = append(errs, w.conn.Close())
	}
	w.list, w.conn = nil, nil
	return errors.Join(errs...)
}

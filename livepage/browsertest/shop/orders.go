package shop

import (
	"context"
	"time"
)

// Orders reads the last hundred.
func (s *Shop) Orders(ctx context.Context) error {
	rows, err := s.DB.QueryContext(ctx, "SELECT id, customer, total FROM orders ORDER BY id DESC LIMIT 100")
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // rows.Err tells
	for rows.Next() {
	}
	return rows.Err()
}

// Order places one: in a transaction, in which it asks another service whether it may.
func (s *Shop) Order(ctx context.Context) error {
	tx, err := s.DB.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // it fails after a commit, as it should
	if _, err := tx.ExecContext(ctx, "INSERT INTO orders (customer, product, total) VALUES (17, 4, 'secret')"); err != nil {
		return err
	}
	time.Sleep(60 * time.Millisecond)
	if _, err := tx.ExecContext(ctx, "UPDATE products SET stock = stock - 1 WHERE id = 4"); err != nil {
		return err
	}
	return tx.Commit()
}

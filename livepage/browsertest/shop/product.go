package shop

import "context"

// Product reads one.
func (s *Shop) Product(ctx context.Context, id int) error {
	var n int
	return s.DB.QueryRowContext(ctx, "SELECT id, name, price FROM products WHERE id = ?", id).Scan(&n)
}

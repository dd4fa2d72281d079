package shop

import (
	"context"
	"errors"
)

// Export reads a customer's orders. It has a mistake: where one is in dispute, it does not close its
// rows.
func (s *Shop) Export(ctx context.Context, disputed bool) error {
	rows, err := s.DB.QueryContext(ctx, "SELECT id, product, total FROM orders WHERE customer = ? LIMIT 100", 17)
	if err != nil {
		return err
	}
	for rows.Next() {
		if disputed {
			s.lost = append(s.lost, rows) // somebody has them still, so that nothing is proven
			return errors.New("one is in dispute")
		}
	}
	return rows.Err()
}

package shop

import "context"

// Invoice needs two connections at once: it reads a product while its transaction has another one.
func (s *Shop) Invoice(ctx context.Context) error {
	tx, err := s.DB.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // it fails after a commit, as it should
	if err := s.Product(ctx, 4); err != nil {
		return err
	}
	return tx.Commit()
}

package main

import (
	"context"
	"database/sql"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// This file is the application: a shop's HTTP service as anybody would write
// it on database/sql. It does not know sqllease. It has four mistakes in it:
// export leaks, invoice asks for a second connection, statistics is slow, and
// stocktaking has a lock while it asks another service.

type shop struct {
	db *sql.DB
}

func (s *shop) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /products/{id}", s.product)
	mux.HandleFunc("GET /orders", s.orders)
	mux.HandleFunc("POST /orders", s.order)
	mux.HandleFunc("GET /report", s.report)
	mux.HandleFunc("GET /export", s.export)
	mux.HandleFunc("GET /invoice", s.invoice)
	mux.HandleFunc("GET /statistics", s.statistics)
	mux.HandleFunc("POST /stocktaking/{id}", s.stocktaking)
	mux.HandleFunc("POST /deliveries/{id}", s.delivery)
	return mux
}

type product struct {
	ID    int    `json:"id"`
	Name  string `json:"name"`
	Price string `json:"price"`
	Stock int    `json:"stock"`
}

type order struct {
	ID       int64  `json:"id"`
	Customer int    `json:"customer"`
	Product  int    `json:"product"`
	Total    string `json:"total,omitempty"`
	Status   string `json:"status,omitempty"`
}

// product answers with one product.
func (s *shop) product(w http.ResponseWriter, r *http.Request) {
	p, err := s.find(r.Context(), r.PathValue("id"))
	switch {
	case errors.Is(err, sql.ErrNoRows):
		http.NotFound(w, r)
	case err != nil:
		fail(w, err)
	default:
		respond(w, p)
	}
}

// orders answers with the latest hundred orders.
func (s *shop) orders(w http.ResponseWriter, r *http.Request) {
	rows, err := s.db.QueryContext(r.Context(),
		"SELECT id, customer, product, total, status FROM sqllease_demo_orders ORDER BY id DESC LIMIT 100")
	if err != nil {
		fail(w, err)
		return
	}
	defer rows.Close() //nolint:errcheck // rows.Err tells
	var list []order
	for rows.Next() {
		var o order
		if err := rows.Scan(&o.ID, &o.Customer, &o.Product, &o.Total, &o.Status); err != nil {
			fail(w, err)
			return
		}
		list = append(list, o)
	}
	if err := rows.Err(); err != nil {
		fail(w, err)
		return
	}
	respond(w, list)
}

// keptOrders is how many orders stay; older ones go when a new one comes.
const keptOrders = 2000

// order places an order: three statements in a transaction.
func (s *shop) order(w http.ResponseWriter, r *http.Request) {
	var o order
	if err := json.NewDecoder(r.Body).Decode(&o); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if err := s.place(r.Context(), &o); err != nil {
		fail(w, err)
		return
	}
	respond(w, o)
}

func (s *shop) place(ctx context.Context, o *order) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // it fails after a commit, as it should
	res, err := tx.ExecContext(ctx, "INSERT INTO sqllease_demo_orders (customer, product, total, status) "+
		"SELECT ?, id, price, 'new' FROM sqllease_demo_products WHERE id = ?", o.Customer, o.Product)
	if err != nil {
		return err
	}
	if o.ID, err = res.LastInsertId(); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "UPDATE sqllease_demo_products SET stock = stock - 1 WHERE id = ?", o.Product)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "DELETE FROM sqllease_demo_orders WHERE id <= ? AND status = 'new'", o.ID-keptOrders)
	if err != nil {
		return err
	}
	return tx.Commit()
}

// report answers with the turnover. SLEEP makes up for the size that a table
// in a demo does not have: this is the slow query that every service has.
func (s *shop) report(w http.ResponseWriter, r *http.Request) {
	var sum struct {
		Orders   int    `json:"orders"`
		Turnover string `json:"turnover"`
	}
	var slept int
	err := s.db.QueryRowContext(r.Context(),
		"SELECT COUNT(*), COALESCE(SUM(total), 0), SLEEP(0.35) FROM sqllease_demo_orders",
	).Scan(&sum.Orders, &sum.Turnover, &slept)
	if err != nil {
		fail(w, err)
		return
	}
	respond(w, sum)
}

// export answers with a customer's orders as CSV, unless one of them is in
// dispute. It is finished even if the client goes away meanwhile.
func (s *shop) export(w http.ResponseWriter, r *http.Request) {
	ctx := context.WithoutCancel(r.Context())
	rows, err := s.db.QueryContext(ctx,
		"SELECT id, product, total, status FROM sqllease_demo_orders WHERE customer = ? LIMIT 100",
		r.FormValue("customer"))
	if err != nil {
		fail(w, err)
		return
	}
	var lines [][]string
	for rows.Next() {
		var id, product, total, status string
		if err := rows.Scan(&id, &product, &total, &status); err != nil {
			fail(w, err)
			return
		}
		if status == "disputed" {
			http.Error(w, fmt.Sprintf("order %s is in dispute", id), http.StatusConflict)
			return
		}
		lines = append(lines, []string{id, product, total, status})
	}
	if err := rows.Err(); err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/csv")
	_ = csv.NewWriter(w).WriteAll(lines) // the client may be gone
}

// find returns a product.
func (s *shop) find(ctx context.Context, id any) (p product, err error) {
	err = s.db.QueryRowContext(ctx,
		"SELECT id, name, price, stock FROM sqllease_demo_products WHERE id = ?", id,
	).Scan(&p.ID, &p.Name, &p.Price, &p.Stock)
	return p, err
}

// invoice answers with an order and its product, both read in one transaction.
// So it was meant: find knows nothing of the transaction, and takes a
// connection of its own.
func (s *shop) invoice(w http.ResponseWriter, r *http.Request) {
	var bill struct {
		Order   order   `json:"order"`
		Product product `json:"product"`
	}
	tx, err := s.db.BeginTx(r.Context(), nil)
	if err != nil {
		fail(w, err)
		return
	}
	defer tx.Rollback() //nolint:errcheck // it fails after a commit, as it should
	o := &bill.Order
	err = tx.QueryRowContext(r.Context(),
		"SELECT id, customer, product, total, status FROM sqllease_demo_orders WHERE customer = ? LIMIT 1",
		r.FormValue("customer"),
	).Scan(&o.ID, &o.Customer, &o.Product, &o.Total, &o.Status)
	if err == nil {
		bill.Product, err = s.find(r.Context(), o.Product)
	}
	if err = errors.Join(err, tx.Commit()); err != nil {
		fail(w, err)
		return
	}
	respond(w, bill)
}

// statistics answers with how many products were ever sold. SLEEP makes up for
// the index that this query would miss on a large table.
func (s *shop) statistics(w http.ResponseWriter, r *http.Request) {
	var sold, slept int
	err := s.db.QueryRowContext(r.Context(),
		"SELECT COUNT(DISTINCT product), SLEEP(1.6) FROM sqllease_demo_orders",
	).Scan(&sold, &slept)
	if err != nil {
		fail(w, err)
		return
	}
	respond(w, sold)
}

// stocktaking writes down how many of a product the warehouse has. Until that is
// done, no delivery may be booked, so it takes the lock. It keeps the lock while it
// waits for the warehouse to answer.
func (s *shop) stocktaking(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	conn, err := s.db.Conn(ctx)
	if err != nil {
		fail(w, err)
		return
	}
	defer conn.Close() //nolint:errcheck // it only gives the connection back
	if err := lockStock(ctx, conn); err != nil {
		fail(w, err)
		return
	}
	defer unlockStock(ctx, conn)
	stock, err := askWarehouse(ctx)
	if err == nil {
		_, err = conn.ExecContext(ctx, "UPDATE sqllease_demo_products SET stock = ? WHERE id = ?", stock, r.PathValue("id"))
	}
	if err != nil {
		fail(w, err)
		return
	}
	respond(w, stock)
}

// delivery adds ten of a product to the stock.
func (s *shop) delivery(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	conn, err := s.db.Conn(ctx)
	if err != nil {
		fail(w, err)
		return
	}
	defer conn.Close() //nolint:errcheck // it only gives the connection back
	if err := lockStock(ctx, conn); err != nil {
		fail(w, err)
		return
	}
	defer unlockStock(ctx, conn)
	_, err = conn.ExecContext(ctx, "UPDATE sqllease_demo_products SET stock = stock + 10 WHERE id = ?", r.PathValue("id"))
	if err != nil {
		fail(w, err)
		return
	}
	respond(w, "booked")
}

// lockStock takes the lock of the stock. It waits for who has it, for 10 s at most.
func lockStock(ctx context.Context, conn *sql.Conn) error {
	var got sql.NullBool
	err := conn.QueryRowContext(ctx, "SELECT GET_LOCK('sqllease_demo_stock', 10)").Scan(&got)
	if err == nil && !got.Bool {
		err = errors.New("the stock is locked")
	}
	return err
}

// unlockStock gives the lock back, also if the request has ended.
func unlockStock(ctx context.Context, conn *sql.Conn) {
	var was sql.NullBool
	row := conn.QueryRowContext(context.WithoutCancel(ctx), "SELECT RELEASE_LOCK('sqllease_demo_stock')")
	_ = row.Scan(&was) // a connection that is lost has no lock
}

// askWarehouse makes up for the warehouse's own service, which takes its time.
func askWarehouse(ctx context.Context) (stock int, err error) {
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-time.After(1600 * time.Millisecond):
		return fullStock, nil
	}
}

func respond(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client may be gone
}

func fail(w http.ResponseWriter, err error) {
	http.Error(w, err.Error(), http.StatusInternalServerError)
}

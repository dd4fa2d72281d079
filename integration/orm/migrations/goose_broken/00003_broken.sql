-- +goose Up
INSERT INTO users (id, name) VALUES (2, 'Bob');
INSERT INTO nowhere (id) VALUES (1);

-- +goose Down
DELETE FROM users WHERE id = 2;

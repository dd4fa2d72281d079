-- +goose Up
CREATE TABLE users (id INT PRIMARY KEY, name VARCHAR(40) NOT NULL);
INSERT INTO users (id, name) VALUES (1, 'Ann');

-- +goose Down
DROP TABLE users;

-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE posts (id INT PRIMARY KEY, author INT NOT NULL);
CREATE INDEX posts_author ON posts (author);

-- +goose Down
DROP TABLE posts;

-- name: CreateUser :one
INSERT INTO users (name) VALUES ($1) RETURNING id;

-- name: CreatePost :exec
INSERT INTO posts (author, title) VALUES ($1, $2);

-- name: UserName :one
SELECT name FROM users WHERE id = $1;

-- name: Posts :many
SELECT users.name, posts.title FROM posts JOIN users ON users.id = posts.author WHERE users.id = $1 ORDER BY posts.id;

-- name: RenameUser :execrows
UPDATE users SET name = $1 WHERE id = $2;

-- name: DeletePosts :execrows
DELETE FROM posts WHERE author = $1;

-- name: CountPosts :one
SELECT COUNT(*) FROM posts;

-- name: Nap :exec
SELECT pg_sleep(sqlc.arg(seconds)::float8);

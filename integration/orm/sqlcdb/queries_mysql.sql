-- name: CreateUser :execlastid
INSERT INTO users (name) VALUES (?);

-- name: CreatePost :exec
INSERT INTO posts (author, title) VALUES (?, ?);

-- name: UserName :one
SELECT name FROM users WHERE id = ?;

-- name: Posts :many
SELECT users.name, posts.title FROM posts JOIN users ON users.id = posts.author WHERE users.id = ? ORDER BY posts.id;

-- name: RenameUser :execrows
UPDATE users SET name = ? WHERE id = ?;

-- name: DeletePosts :execrows
DELETE FROM posts WHERE author = ?;

-- name: CountPosts :one
SELECT COUNT(*) FROM posts;

-- name: Nap :one
SELECT SLEEP(sqlc.arg(seconds));

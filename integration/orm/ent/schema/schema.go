// Package schema is what ent generates its code from.
package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/schema/edge"
	"entgo.io/ent/schema/field"
)

// User has posts.
type User struct{ ent.Schema }

// Fields of a user.
func (User) Fields() []ent.Field {
	return []ent.Field{field.String("name")}
}

// Edges of a user.
func (User) Edges() []ent.Edge {
	return []ent.Edge{edge.To("posts", Post.Type)}
}

// Post belongs to its author.
type Post struct{ ent.Schema }

// Fields of a post.
func (Post) Fields() []ent.Field {
	return []ent.Field{field.String("title")}
}

// Edges of a post.
func (Post) Edges() []ent.Edge {
	return []ent.Edge{edge.From("author", User.Type).Ref("posts").Unique().Required()}
}

package sqllease

import (
	"reflect"
	"sync"
)

// plainTypes are types of values that refer to nothing but data.
type plainTypes struct{ known sync.Map } // of reflect.Type to bool

func (p *plainTypes) has(t reflect.Type) bool {
	plain, ok := p.known.Load(t)
	if !ok {
		plain = isPlain(t, 0)
		p.known.Store(t, plain)
	}
	return plain.(bool)
}

// isPlain tells whether values of a type can refer to nothing but data.
func isPlain(t reflect.Type, depth int) bool {
	const deepest = 8 // a type may refer to itself
	if depth > deepest {
		return false
	}
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array:
		return isPlain(t.Elem(), depth+1)
	case reflect.Struct:
		for i := range t.NumField() {
			if !isPlain(t.Field(i).Type, depth+1) {
				return false
			}
		}
		return true
	case reflect.Chan, reflect.Func, reflect.Interface, reflect.Map, reflect.UnsafePointer, reflect.Uintptr:
		return false
	}
	return true
}

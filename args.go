package sqllease

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
)

// CheckNamedValue checks an argument of a direct call. database/sql asks it
// before it asks whether the driver has such calls at all: a driver that has
// none sees its arguments later, per statement, so that they pass unchecked
// here. Of a driver with only one of Exec and Query, the arguments are checked
// in the call, see checkDeferred.
func (h *handle) CheckNamedValue(v *driver.NamedValue) error {
	h.checks(v)
	if h.unchecked = h.pending; h.use() != nil {
		return nil // pending: checked in the call; or lost: the call itself says so
	}
	defer h.unuse()
	can := &h.session.can
	if !can.execs || !can.queries {
		return nil
	}
	return h.checkValue(can.checker, v)
}

// checkValue asks a checker of the driver's, which may be nil.
func (h *handle) checkValue(checker driver.NamedValueChecker, v *driver.NamedValue) error {
	if checker == nil {
		return driver.ErrSkip
	}
	returned := false
	defer h.guard(&returned)
	err := checker.CheckNamedValue(v)
	returned = true
	return err
}

// checkDeferred does what database/sql does with arguments for a direct call,
// for the drivers of which CheckNamedValue could not know the call, and for the first call
// of a handle, which had no session then.
func (h *handle) checkDeferred(args []driver.NamedValue) ([]driver.NamedValue, error) {
	can := &h.session.can
	if can.execs && can.queries && !h.unchecked {
		return args, nil
	}
	h.unchecked = false
	kept := args[:0]
	for _, v := range args {
		v.Ordinal = len(kept) + 1
		err := driver.ErrSkip
		if can.checker != nil {
			err = can.checker.CheckNamedValue(&v)
		}
		if err == driver.ErrSkip {
			v.Value, err = driver.DefaultParameterConverter.ConvertValue(v.Value)
		}
		if err == driver.ErrRemoveArgument {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("sql: converting argument %s type: %w", argumentName(v), err)
		}
		kept = append(kept, v)
	}
	return kept, nil
}

// argumentName names an argument as database/sql's errors do.
func argumentName(v driver.NamedValue) string {
	if v.Name == "" {
		return fmt.Sprintf("$%d", v.Ordinal)
	}
	return fmt.Sprintf("with name %q", v.Name)
}

// plainValues makes the arguments of a legacy call, and refuses what it cannot
// carry, as database/sql does: names, and a context that has ended.
func plainValues(ctx context.Context, args []driver.NamedValue) ([]driver.Value, error) {
	values := make([]driver.Value, len(args))
	for i, v := range args {
		if v.Name != "" {
			return nil, errors.New("sql: driver does not support the use of Named Parameters")
		}
		values[i] = v.Value
	}
	return values, ctx.Err()
}

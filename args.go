package sqllease

import (
	"database/sql/driver"
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
	if !can.Execs || !can.Queries {
		return nil
	}
	return h.checkValue(can.Checker, v)
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
	if can.Execs && can.Queries && !h.unchecked {
		return args, nil
	}
	h.unchecked = false
	kept := args[:0]
	for _, v := range args {
		v.Ordinal = len(kept) + 1
		err := driver.ErrSkip
		if can.Checker != nil {
			err = can.Checker.CheckNamedValue(&v)
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

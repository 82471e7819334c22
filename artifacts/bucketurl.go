package artifacts

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// A BucketURL is the URL of a store in a bucket, of whatever provider.
type BucketURL struct {
	URL     *url.URL
	Store   fmt.Stringer // as errors call it, without secrets
	Secrets string       // the variables that its credentials come from
	// Set takes each parameter, by its name.
	Set map[string]func(value string) error
}

// Read hands every parameter on. Credentials in a URL are refused: they would
// end in logs and histories; so are parameters that nobody knows.
func (b BucketURL) Read() error {
	if b.URL.User != nil {
		return fmt.Errorf("open store %s: credentials do not belong into a URL: set %s: %w", b.Store, b.Secrets,
			ErrInvalid)
	}
	for name, values := range b.URL.Query() {
		set := b.Set[name]
		if set == nil {
			return fmt.Errorf("open store %s: unknown parameter %q, want one of %s: %w", b.Store, name,
				strings.Join(slices.Sorted(maps.Keys(b.Set)), ", "), ErrInvalid)
		}
		if err := set(values[len(values)-1]); err != nil {
			return fmt.Errorf("open store %s: %s=%w", b.Store, name, err)
		}
	}
	return nil
}

// Text is a parameter that any text is a value of.
func Text(to *string) func(string) error {
	return func(value string) error { *to = value; return nil }
}

// YesNo is a parameter that is true or false.
func YesNo(set func(bool)) func(string) error {
	return func(value string) error {
		yes, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false: %w", value, ErrInvalid)
		}
		set(yes)
		return nil
	}
}

// CheckPrefix answers why a prefix cannot be put in front of keys.
func CheckPrefix(store fmt.Stringer, prefix string) error {
	if prefix == "" {
		return nil
	}
	if err := CheckKey(strings.ToLower(prefix)); err != nil {
		return fmt.Errorf("open store %s: prefix: %w", store, err)
	}
	return nil
}

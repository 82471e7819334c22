package release

// SetPoint calls f before each effect of r.
func SetPoint(r *Releases, f func(string)) { r.point = f }

// ChconArgs are the arguments of chcon for a context.
var ChconArgs = chconArgs

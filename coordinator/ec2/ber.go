package ec2

import "errors"

var errBER = errors.New("it is no BER whose objects lie within each other")

// wellFormed walks BER once: every object lies within the one around it, none deeper
// than a document needs. The parser of PKCS #7 reads what reaches out of its object
// twice, and that at each level.
func wellFormed(b []byte) error {
	rest, err := walk(b, 24)
	if err == nil && len(rest) > 0 {
		err = errBER
	}
	return err
}

// walk takes one object off b.
func walk(b []byte, depth int) (rest []byte, err error) {
	if len(b) < 2 || depth == 0 || b[0]&0x1f == 0x1f {
		return nil, errBER
	}
	constructed, n := b[0]&0x20 != 0, int(b[1])
	b = b[2:]
	if n == 0x80 { // until two zeros
		if !constructed {
			return nil, errBER
		}
		for len(b) < 2 || b[0] != 0 || b[1] != 0 {
			if b, err = walk(b, depth-1); err != nil {
				return nil, err
			}
		}
		return b[2:], nil
	}
	if n > 0x80 {
		k := n & 0x7f
		if k > 3 || k > len(b) {
			return nil, errBER
		}
		n = 0
		for _, x := range b[:k] {
			n = n<<8 | int(x)
		}
		b = b[k:]
	}
	if n > len(b) {
		return nil, errBER
	}
	in, rest := b[:n], b[n:]
	for constructed && len(in) > 0 {
		if in, err = walk(in, depth-1); err != nil {
			return nil, err
		}
	}
	return rest, nil
}

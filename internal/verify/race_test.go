//go:build race

package verify_test

// stride is how far tests of every bit move on. The race detector makes them slow, and
// finds nothing in one bit that it would not find in another.
const stride = 5

//go:build !race

package verify_test

// stride is how far tests of every bit move on.
const stride = 1

// Package controlv1 of proto/control/v1 is the API for people and their programs.
package controlv1

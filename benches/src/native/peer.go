// Go as a peer. Reads commands from the standard input, a line each, and answers each with a line
// of numbers.
package main

import (
	"fmt"
	"math/rand"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
)

var sliceNs float64
var times int64

// goesOn tells if another batch of operations is to follow.
func goesOn(begin time.Time, done int64) bool {
	if times > 0 {
		return done < times
	}
	return float64(time.Since(begin).Nanoseconds()) < sliceNs
}

// each gives the ns of one operation.
func each(batch int, operation func()) float64 {
	begin, n := time.Now(), int64(0)
	for {
		for i := 0; i < batch; i++ {
			operation()
		}
		n += int64(batch)
		if !goesOn(begin, n) {
			return float64(time.Since(begin).Nanoseconds()) / float64(n)
		}
	}
}

func cpu() float64 {
	var usage syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return float64(usage.Utime.Nano() + usage.Stime.Nano())
}

const beat = 500 * time.Millisecond

func turn() float64 {
	events := make(chan uint64, 64)
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	return each(64, func() {
		events <- 1
		select {
		case <-events:
			ticker.Reset(beat)
		case <-ticker.C:
		}
	})
}

func rearm() float64 {
	timer := time.NewTimer(1000 * time.Second)
	defer timer.Stop()
	return each(64, func() { timer.Reset(1000 * time.Second) })
}

var manyTimers []*time.Timer
var manyOrder []int
var manyNext int

// many moves one of n timers at random to a later time, or to an earlier one.
func many(n int, step time.Duration) float64 {
	if len(manyTimers) != n {
		for _, timer := range manyTimers {
			timer.Stop()
		}
		manyTimers = make([]*time.Timer, n)
		for i := range manyTimers {
			manyTimers[i] = time.AfterFunc(1000*time.Hour+spread(i), func() {})
		}
		manyOrder = rand.New(rand.NewSource(1)).Perm(n)
		manyNext = 0
	}
	return each(64, func() {
		i := manyOrder[manyNext%n]
		pass := time.Duration(manyNext/n + 1)
		manyNext++
		if step == 0 {
			manyTimers[i].Reset(1000*time.Hour - time.Duration(manyNext)*time.Microsecond)
			return
		}
		manyTimers[i].Reset(1000*time.Hour + pass*step + spread(i))
	})
}

func spread(i int) time.Duration {
	return time.Duration(uint64(i)*0x9e3779b9%100_000_000) * time.Microsecond
}

// threads lets producers send to one receiver with a live ticker; ns a message.
func threads(producers int) float64 {
	events := make(chan uint64, 1024)
	var stop atomic.Bool
	for p := 0; p < producers; p++ {
		go func() {
			for !stop.Load() {
				events <- 1
			}
		}()
	}
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	receive := func() {
		select {
		case <-events:
		case <-ticker.C:
		}
	}
	for i := 0; i < 8192; i++ {
		receive()
	}
	ns := each(256, receive)
	stop.Store(true)
	for idle := 0; idle < 3; {
		select {
		case <-events:
			idle = 0
		case <-time.After(time.Millisecond):
			idle++
		}
	}
	return ns
}

// trip sends a message to another goroutine and back. Go runs both on one thread, and switches
// between them, unless each is locked to a thread of its own: n is the number of threads.
func trip(n int) float64 {
	there, here := make(chan uint64, 8), make(chan uint64, 8)
	if n > 1 {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
	}
	go func() {
		if n > 1 {
			runtime.LockOSThread()
		}
		for n := range there {
			here <- n
		}
	}()
	defer close(there)
	return each(64, func() {
		there <- 1
		<-here
	})
}

// million starts n timers, 1,000 to a millisecond, lets all fire and drops them; CPU ns a timer.
func million(n int) (start, fire, drop float64) {
	timers := make([]*time.Timer, n)
	var fired atomic.Int64
	done := make(chan bool)
	runtime.GC()
	a, ms := cpu(), time.Duration(0)
	for i := range timers {
		if i%1000 == 0 {
			ms += time.Millisecond
		}
		timers[i] = time.AfterFunc(ms, func() {
			if fired.Add(1) == int64(n) {
				done <- true
			}
		})
	}
	b := cpu()
	<-done
	c := cpu()
	for i := range timers {
		timers[i].Stop()
		timers[i] = nil
	}
	d := cpu()
	of := float64(n)
	return (b - a) / of, (c - b) / of, (d - c) / of
}

// late sleeps n times and gives how late each sleep was, in ns.
func late(n int) {
	for i := 0; i < n; i++ {
		due := time.Now().Add(time.Duration(sliceNs))
		<-time.After(time.Until(due))
		fmt.Printf("%d ", time.Since(due).Nanoseconds())
	}
	fmt.Println()
}

func main() {
	for {
		var word string
		var n int
		if _, err := fmt.Scan(&word, &n, &sliceNs, &times); err != nil {
			return
		}
		switch word {
		case "turn":
			fmt.Println(turn())
		case "rearm":
			fmt.Println(rearm())
		case "later":
			fmt.Println(many(n, 10*time.Second))
		case "earlier":
			fmt.Println(many(n, -time.Second))
		case "first":
			fmt.Println(many(n, 0))
		case "threads":
			fmt.Println(threads(n))
		case "trip":
			fmt.Println(trip(n))
		case "million":
			fmt.Println(million(n))
		case "late":
			late(n)
		default:
			os.Exit(1)
		}
	}
}

// Names a function of each library that no other needs.
#include <qcompile/runtime/insight/explain.h>
#include <qcompile/runtime/training/trainer.h>

int main() {
  const volatile auto explain = &qc::explain;
  const volatile auto open = &qc::Trainer::open;
  return explain != nullptr && open != nullptr ? 0 : 1;
}
